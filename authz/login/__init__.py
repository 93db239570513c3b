"""Log-ins of people: the front door, the step-up and their pages; and one from a terminal."""
