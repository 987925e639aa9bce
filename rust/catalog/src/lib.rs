//! Containers and objects over the map and the pool.
