-- The browser's sign-in with which a preview link was made; the grant ends with it. Grants of links that were made with a
-- token have none.
ALTER TABLE preview_grants ADD COLUMN sign_in BYTEA;
