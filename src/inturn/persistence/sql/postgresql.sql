-- PostgreSQL: the schema and the queries of PostgreSQLAdapter.
--
-- In braces: {sessions}, {messages}, {turns} are the tables, {sessions_...} and {messages_...} their indexes.
-- IDs compare by code point ("C"), as everywhere in inturn, whatever the database's own collation.

-- name: schema
CREATE TABLE IF NOT EXISTS {sessions} (
    id TEXT COLLATE "C" PRIMARY KEY,
    user_id TEXT COLLATE "C",
    agent_name TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL DEFAULT 'active',
    current_route TEXT,
    current_step TEXT,
    collected_data JSONB NOT NULL DEFAULT '{{}}',
    state JSONB NOT NULL DEFAULT '{{}}',
    message_count BIGINT NOT NULL DEFAULT 0,
    last_message_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    version BIGINT NOT NULL DEFAULT 1,
    schema_version BIGINT
);
CREATE INDEX IF NOT EXISTS {sessions_user_status} ON {sessions} (user_id, status);
CREATE INDEX IF NOT EXISTS {sessions_updated} ON {sessions} (updated_at, id);

CREATE TABLE IF NOT EXISTS {messages} (
    id TEXT COLLATE "C" PRIMARY KEY,
    session_id TEXT COLLATE "C" NOT NULL REFERENCES {sessions} (id) ON DELETE CASCADE,
    sequence BIGINT NOT NULL,
    turn_id TEXT,
    user_id TEXT COLLATE "C",
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    name TEXT,
    route TEXT,
    step TEXT,
    tool_calls JSONB,
    event JSONB,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
-- One index is the rule that a session's sequences are unique, and finds its newest messages.
CREATE UNIQUE INDEX IF NOT EXISTS {messages_session} ON {messages} (session_id, sequence);
CREATE INDEX IF NOT EXISTS {messages_created} ON {messages} (created_at);
CREATE INDEX IF NOT EXISTS {messages_user} ON {messages} (user_id, created_at, id) WHERE user_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS {turns} (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES {sessions} (id) ON DELETE CASCADE,
    turn_id TEXT COLLATE "C" NOT NULL,
    result JSONB NOT NULL DEFAULT '{{}}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, turn_id)
);

-- name: is_complete
-- Whether all of the schema is there. CREATE ... IF NOT EXISTS would lock tables, and need the right to
-- create, even where there is nothing to create.
SELECT bool_and(to_regclass(name) IS NOT NULL) AS complete FROM unnest(%(names)s::text[]) AS name

-- name: ping
SELECT 1

-- name: load
-- One statement, so one snapshot. The messages come as one JSON text, which is read in one go, newest first in
-- the inner query because that end of the index is where they are.
SELECT
    {session_columns},
    (
        SELECT json_agg(m ORDER BY m.sequence)::text
        FROM (
            SELECT
                id, session_id, sequence, turn_id, user_id, role, content, name, route, step, tool_calls, event,
                to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at
            FROM {messages}
            WHERE session_id = s.id
            ORDER BY sequence DESC
            LIMIT %(last_messages)s
        ) AS m
    ) AS messages,
    (
        SELECT json_build_object(
            'result', result,
            'created_at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        )
        FROM {turns}
        WHERE session_id = s.id AND turn_id = %(turn_id)s
    ) AS turn
FROM {sessions} AS s
WHERE id = %(session_id)s

-- name: recorded
SELECT s.version, t.turn_id
FROM {sessions} AS s
LEFT JOIN {turns} AS t ON t.session_id = s.id AND t.turn_id = ANY(%(turn_ids)s)
WHERE s.id = %(session_id)s

-- name: insert_session
INSERT INTO {sessions} ({session_columns})
VALUES (
    %(id)s, %(user_id)s, %(agent_name)s, %(status)s, %(current_route)s, %(current_step)s,
    %(collected_data)s, %(state)s, %(message_count)s, %(last_message_at)s, %(completed_at)s, %(created_at)s,
    %(updated_at)s, %(version)s, %(schema_version)s
)
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: update_session
-- Whoever waited here for another writer's row lock sees the new version, and writes nothing.
UPDATE {sessions} SET
    user_id = %(user_id)s,
    agent_name = %(agent_name)s,
    status = %(status)s,
    current_route = %(current_route)s,
    current_step = %(current_step)s,
    collected_data = %(collected_data)s,
    state = %(state)s,
    message_count = %(message_count)s,
    last_message_at = %(last_message_at)s,
    completed_at = %(completed_at)s,
    created_at = %(created_at)s,
    updated_at = %(updated_at)s,
    version = %(version)s,
    schema_version = %(schema_version)s
WHERE id = %(id)s
    AND version = %(expected_version)s
    AND message_count = %(expected_count)s
RETURNING id

-- name: commit
-- {written} is one of the two queries above. No row: nothing was written, by any of the parts.
WITH written AS (
    {written}
), remembered AS (
    INSERT INTO {turns} (session_id, turn_id, result, created_at)
    SELECT id, %(turn_id)s::text, %(turn_result)s::jsonb, %(turn_created_at)s::timestamptz
    FROM written
    WHERE %(turn_id)s::text IS NOT NULL
), appended AS (
    INSERT INTO {messages} ({message_columns})
    SELECT
        m.id, written.id, m.sequence, m.turn_id, m.user_id, m.role, m.content, m.name, m.route, m.step,
        m.tool_calls::jsonb, m.event::jsonb, m.created_at
    FROM written, json_to_recordset(%(messages)s::json) AS m (
        id text, sequence bigint, turn_id text, user_id text, role text, content text, name text, route text,
        step text, tool_calls text, event text, created_at timestamptz
    )
)
SELECT id FROM written

-- name: find_sessions
SELECT {session_columns} FROM {sessions}

-- name: find_messages
SELECT {message_columns} FROM {messages}

-- name: delete_sessions
-- Messages and turns go by ON DELETE CASCADE. A row that somebody else is changing is waited for and looked
-- at again, so a session that has moved on stays.
DELETE FROM {sessions} AS s
USING unnest(%(ids)s::text[], %(versions)s::bigint[]) AS target (id, version)
WHERE s.id = target.id AND (target.version IS NULL OR s.version = target.version)
RETURNING s.id

-- name: find_turns
SELECT session_id, turn_id, result, created_at FROM {turns}
WHERE session_id = %(session_id)s AND turn_id > %(after)s ORDER BY turn_id LIMIT %(limit)s

-- name: rewrite
WITH s AS (
    UPDATE {sessions} SET collected_data = %(collected_data)s::jsonb, state = %(state)s::jsonb
    WHERE id = %(id)s::text AND version = %(version)s::bigint
    RETURNING 1
), m AS (
    UPDATE {messages} AS stored
    SET content = m.content, name = m.name, tool_calls = m.tool_calls::jsonb, event = m.event::jsonb
    FROM json_to_recordset(%(messages)s::json) AS m (
        id text, session_id text, content text, name text, tool_calls text, event text
    )
    WHERE stored.id = m.id AND stored.session_id = m.session_id
    RETURNING 1
), t AS (
    UPDATE {turns} AS stored SET result = t.result::jsonb
    FROM json_to_recordset(%(turns)s::json) AS t (session_id text, turn_id text, result text)
    WHERE stored.session_id = t.session_id AND stored.turn_id = t.turn_id
    RETURNING 1
)
SELECT (SELECT count(*) FROM s) + (SELECT count(*) FROM m) + (SELECT count(*) FROM t) AS rewritten
