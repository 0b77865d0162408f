"""The method: from a data set to a recommended net, with its uncertainty."""
