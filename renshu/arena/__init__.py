"""The room in which players of games meet: matches, leagues, records, and a person at the terminal."""
