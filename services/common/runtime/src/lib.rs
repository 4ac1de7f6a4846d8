//! One lifecycle for every service: start, ready, drain within a budget, stop.
