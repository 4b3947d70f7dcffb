"""The distributed hash table: a phone book of peers that nobody owns and everybody keeps a page of."""
