"""What inturn is measured against: the same turns on other queues, each in a file of its own."""
