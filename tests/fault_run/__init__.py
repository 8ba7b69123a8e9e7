"""The fault run: room, database and collector die and return for minutes; afterwards nothing is missing or invented."""
