"""Tables, schemas, preparation, splits and partitions."""
