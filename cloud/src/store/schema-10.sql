-- Who signed in for a key, as "ISSUER SUBJECT"; nobody where an admin made it.
ALTER TABLE api_keys ADD COLUMN person TEXT;
CREATE INDEX api_keys_by_person ON api_keys (person) WHERE person IS NOT NULL;
