//! Model artifacts: written whole or not at all, checked by their manifest before they are used.
