-- The IP address from which a visitor of a preview signed in with a browser. A page of one port of a session that asks
-- another port without cookies is known by it. NULL for callers that send a token with each request.
ALTER TABLE preview_grants ADD COLUMN address TEXT;
