"""The page in a browser and its HTTP interface; nothing that classifies runs in the server's own process."""
