"""Pure maths on arrays and spaces. No classes with state."""
