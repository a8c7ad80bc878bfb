"""OTLP exports of the apps of sessions: fetched from their containers, or sent over HTTP with a session's token."""
