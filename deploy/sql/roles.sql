-- Roles for PostgreSQL: each process may do its work, and no more.
--
-- Run it as the owner of the tables, in the database of DATABASE_URL, after `inturn db upgrade`; and again
-- after each upgrade that brings a table. It may be repeated.
--
--     psql -v ON_ERROR_STOP=1 "$OWNER_URL" -f deploy/sql/roles.sql
--
-- Then make a user for each kind of process, and give each its own URL:
--
--     CREATE USER web PASSWORD '...' IN ROLE inturn_producer;           -- the web application, producers
--     CREATE USER worker PASSWORD '...' IN ROLE inturn_worker;          -- workers of turns and deliveries
--     CREATE USER maintenance PASSWORD '...' IN ROLE inturn_retention;  -- a worker of the queue `maintenance`,
--                                                                     -- and `inturn users erase`
--     CREATE USER report PASSWORD '...' IN ROLE inturn_readonly;        -- people, and their reports
--
-- | may | producer | worker | retention | readonly |
-- | --- | --- | --- | --- | --- |
-- | read sessions, messages, turns | yes | yes | yes | yes |
-- | begin and change sessions, append messages and turns | no | yes | yes | no |
-- | change or delete single messages or turns | no | no | their content only | no |
-- | delete sessions, with all that was said | yes | no | yes | no |
-- | accept turns (INTURN_INBOX=database) | yes | yes | removes them | looks only |
-- | change the schema | no | no | no | no |
--
-- The tables are those of the default names; change them here if yours have others.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['inturn_producer', 'inturn_worker', 'inturn_retention', 'inturn_readonly'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- it is there: roles belong to the whole server
        END;
    END LOOP;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO inturn_producer, inturn_worker, inturn_retention, inturn_readonly;

REVOKE ALL ON agent_sessions, agent_messages, agent_turns
    FROM PUBLIC, inturn_producer, inturn_worker, inturn_retention, inturn_readonly;
GRANT SELECT ON agent_sessions, agent_messages, agent_turns
    TO inturn_producer, inturn_worker, inturn_retention, inturn_readonly;

-- Messages and turns go with their session, by the rights of the tables' owner.
GRANT DELETE ON agent_sessions TO inturn_producer, inturn_retention;

GRANT INSERT, UPDATE ON agent_sessions TO inturn_worker;
-- What was said is never changed: a worker that is taken over can add to a history, and not rewrite it.
GRANT INSERT ON agent_messages, agent_turns TO inturn_worker;

-- It marks sessions as abandoned, and begins the tombstones of those that were erased.
GRANT INSERT, UPDATE ON agent_sessions TO inturn_retention;
-- Neither appends anything; but the statement is that of every commit.
GRANT INSERT ON agent_messages, agent_turns TO inturn_retention;
-- The rotation of encryption keys seals these columns anew, and an erasure blanks them in others' sessions.
GRANT UPDATE (content, name, tool_calls, event) ON agent_messages TO inturn_retention;
GRANT UPDATE (result) ON agent_turns TO inturn_retention;

DO $$
BEGIN
    IF to_regclass('agent_inbox') IS NOT NULL THEN
        REVOKE ALL ON agent_inbox
            FROM PUBLIC, inturn_producer, inturn_worker, inturn_retention, inturn_readonly;
        GRANT SELECT, INSERT, DELETE ON agent_inbox TO inturn_producer, inturn_worker;
        GRANT SELECT, DELETE ON agent_inbox TO inturn_retention;
        GRANT SELECT ON agent_inbox TO inturn_readonly;
        EXECUTE format(
            'GRANT USAGE ON SEQUENCE %s TO inturn_producer, inturn_worker',
            pg_get_serial_sequence('agent_inbox', 'position')
        );
    END IF;
    IF to_regclass('alembic_version') IS NOT NULL THEN
        REVOKE ALL ON alembic_version FROM PUBLIC;
        GRANT SELECT ON alembic_version
            TO inturn_producer, inturn_worker, inturn_retention, inturn_readonly;
    END IF;
END
$$;
