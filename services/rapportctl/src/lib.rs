//! The command line of Rapport.
