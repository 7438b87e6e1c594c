//! Single decisions of the batcher, by example.
