-- SQLite: the schema and the queries of SQLiteAdapter.
--
-- In braces: {sessions}, {messages}, {turns} are the tables, {sessions_...} and {messages_...} their indexes.
-- Times are texts in UTC of one length (2026-01-31T12:00:00.000000+00:00), so their order is that of time.
-- JSON is text. Texts compare by code point, which is SQLite's own way.

-- name: schema
CREATE TABLE IF NOT EXISTS {sessions} (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT,
    agent_name TEXT,
    status TEXT NOT NULL DEFAULT 'active',
    current_route TEXT,
    current_step TEXT,
    collected_data TEXT NOT NULL DEFAULT '{{}}',
    state TEXT NOT NULL DEFAULT '{{}}',
    message_count INTEGER NOT NULL DEFAULT 0,
    last_message_at TEXT,
    completed_at TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    schema_version INTEGER
);
CREATE INDEX IF NOT EXISTS {sessions_user_status} ON {sessions} (user_id, status);
CREATE INDEX IF NOT EXISTS {sessions_updated} ON {sessions} (updated_at, id);

CREATE TABLE IF NOT EXISTS {messages} (
    id TEXT NOT NULL PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES {sessions} (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    turn_id TEXT,
    user_id TEXT,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    name TEXT,
    route TEXT,
    step TEXT,
    tool_calls TEXT,
    event TEXT,
    created_at TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS {messages_session} ON {messages} (session_id, sequence);
CREATE INDEX IF NOT EXISTS {messages_created} ON {messages} (created_at);
CREATE INDEX IF NOT EXISTS {messages_user} ON {messages} (user_id, created_at, id) WHERE user_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS {turns} (
    session_id TEXT NOT NULL REFERENCES {sessions} (id) ON DELETE CASCADE,
    turn_id TEXT NOT NULL,
    result TEXT NOT NULL DEFAULT '{{}}',
    created_at TEXT NOT NULL,
    PRIMARY KEY (session_id, turn_id)
);

-- name: load_session
SELECT {session_columns} FROM {sessions} WHERE id = :id

-- name: load_messages
SELECT {message_columns} FROM {messages} WHERE session_id = :id ORDER BY sequence DESC LIMIT :last_messages

-- name: load_turn
SELECT result, created_at FROM {turns} WHERE session_id = :id AND turn_id = :turn_id

-- name: recorded
SELECT s.version, t.turn_id
FROM {sessions} AS s
LEFT JOIN {turns} AS t ON t.session_id = s.id AND t.turn_id IN (SELECT value FROM json_each(:turn_ids))
WHERE s.id = :id

-- name: current
SELECT version, message_count FROM {sessions} WHERE id = :id

-- name: write_session
INSERT INTO {sessions} ({session_columns})
VALUES (
    :id, :user_id, :agent_name, :status, :current_route, :current_step, :collected_data, :state,
    :message_count, :last_message_at, :completed_at, :created_at, :updated_at, :version, :schema_version
)
ON CONFLICT (id) DO UPDATE SET
    user_id = excluded.user_id,
    agent_name = excluded.agent_name,
    status = excluded.status,
    current_route = excluded.current_route,
    current_step = excluded.current_step,
    collected_data = excluded.collected_data,
    state = excluded.state,
    message_count = excluded.message_count,
    last_message_at = excluded.last_message_at,
    completed_at = excluded.completed_at,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at,
    version = excluded.version,
    schema_version = excluded.schema_version

-- name: append_message
INSERT INTO {messages} ({message_columns})
VALUES (
    :id, :session_id, :sequence, :turn_id, :user_id, :role, :content, :name, :route, :step, :tool_calls,
    :event, :created_at
)

-- name: remember_turn
INSERT INTO {turns} (session_id, turn_id, result, created_at)
VALUES (:session_id, :turn_id, :result, :created_at)

-- name: find_sessions
SELECT {session_columns} FROM {sessions}

-- name: find_messages
SELECT {message_columns} FROM {messages}

-- name: delete_session
DELETE FROM {sessions} WHERE id = :id AND (:version IS NULL OR version = :version)

-- name: delete_messages
-- Messages and turns go by ON DELETE CASCADE too, but only where the connection has foreign keys on, which
-- one that is not ours may not have.
DELETE FROM {messages} WHERE session_id = :id

-- name: delete_turns
DELETE FROM {turns} WHERE session_id = :id

-- name: find_turns
SELECT session_id, turn_id, result, created_at FROM {turns}
WHERE session_id = :id AND turn_id > :after ORDER BY turn_id LIMIT :limit

-- name: rewrite_session
UPDATE {sessions} SET collected_data = :collected_data, state = :state WHERE id = :id AND version = :version

-- name: rewrite_message
UPDATE {messages} SET content = :content, name = :name, tool_calls = :tool_calls, event = :event
WHERE id = :id AND session_id = :session_id

-- name: rewrite_turn
UPDATE {turns} SET result = :result WHERE session_id = :session_id AND turn_id = :turn_id
