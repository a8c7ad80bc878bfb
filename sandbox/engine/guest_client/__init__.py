"""The client of the guest agent, the program that runs inside every container."""
