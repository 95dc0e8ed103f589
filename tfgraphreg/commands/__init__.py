"""The commands of the program: flags, help, and the one call that each makes."""
