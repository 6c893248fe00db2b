"""
Service and Pod → Endpoints and EndpointSlice; Endpoints of others → EndpointSlice.

Who may reach which address is the service proxy's and the DNS's work, not done here.
"""
