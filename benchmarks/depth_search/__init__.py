"""Search for depths at which an elastic network takes no more time than its base."""
