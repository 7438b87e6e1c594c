//! What the tests of the whole system share: the rules of the architecture as data, and their checkers.

pub mod architecture;
