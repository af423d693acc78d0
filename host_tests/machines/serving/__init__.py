"""The parts of fake_server.py: answer (data), request, wire, connection, receiver."""
