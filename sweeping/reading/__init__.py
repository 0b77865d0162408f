"""What a study's readers see: summary, words, plots, the page. Stands on `sweeping.table` alone."""
