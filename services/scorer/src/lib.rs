//! The scorer: recommendations that reflect what the customer did a moment ago.
