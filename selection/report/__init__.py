"""What a choice says to its readers: the page and its words."""
