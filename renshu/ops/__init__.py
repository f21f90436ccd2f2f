"""Pure maths on arrays: returns, distributions, running statistics, schedules. No classes with state."""
