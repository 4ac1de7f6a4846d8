//! Logs, traces and metrics, and the port that shows a service's health.
