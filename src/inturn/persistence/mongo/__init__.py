"""What MongoAdapter is made of: where its client comes from, the shape of its documents, its protocol."""
