"""Tables as another program has made them, from two Prisma models, with rows in them."""

from __future__ import annotations

from datetime import UTC, datetime

from inturn.persistence import MessageQuery, PersistenceAdapter, SessionQuery

_POSTGRESQL = """
CREATE TABLE "agent_sessions" (
    "id" TEXT NOT NULL,
    "user_id" TEXT,
    "agent_name" TEXT,
    "status" TEXT NOT NULL DEFAULT 'active',
    "current_route" TEXT,
    "current_step" TEXT,
    "collected_data" JSONB,
    "message_count" INTEGER NOT NULL DEFAULT 0,
    "last_message_at" TIMESTAMP(3),
    "completed_at" TIMESTAMP(3),
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "agent_sessions_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "agent_messages" (
    "id" TEXT NOT NULL,
    "session_id" TEXT NOT NULL,
    "user_id" TEXT,
    "role" TEXT NOT NULL,
    "content" TEXT NOT NULL,
    "route" TEXT,
    "step" TEXT,
    "tool_calls" JSONB,
    "event" JSONB,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "agent_messages_pkey" PRIMARY KEY ("id")
);
ALTER TABLE "agent_messages" ADD CONSTRAINT "agent_messages_session_id_fkey"
    FOREIGN KEY ("session_id") REFERENCES "agent_sessions"("id") ON DELETE CASCADE ON UPDATE CASCADE;
"""
_SQLITE = """
CREATE TABLE "agent_sessions" (
    "id" TEXT NOT NULL PRIMARY KEY,
    "user_id" TEXT,
    "agent_name" TEXT,
    "status" TEXT NOT NULL DEFAULT 'active',
    "current_route" TEXT,
    "current_step" TEXT,
    "collected_data" JSONB,
    "message_count" INTEGER NOT NULL DEFAULT 0,
    "last_message_at" DATETIME,
    "completed_at" DATETIME,
    "created_at" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" DATETIME NOT NULL
);
CREATE TABLE "agent_messages" (
    "id" TEXT NOT NULL PRIMARY KEY,
    "session_id" TEXT NOT NULL,
    "user_id" TEXT,
    "role" TEXT NOT NULL,
    "content" TEXT NOT NULL,
    "route" TEXT,
    "step" TEXT,
    "tool_calls" JSONB,
    "event" JSONB,
    "created_at" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "agent_messages_session_id_fkey" FOREIGN KEY ("session_id")
        REFERENCES "agent_sessions" ("id") ON DELETE CASCADE ON UPDATE CASCADE
);
"""
_MYSQL = """
CREATE TABLE `agent_sessions` (
    `id` VARCHAR(191) NOT NULL,
    `user_id` VARCHAR(191) NULL,
    `agent_name` VARCHAR(191) NULL,
    `status` VARCHAR(191) NOT NULL DEFAULT 'active',
    `current_route` VARCHAR(191) NULL,
    `current_step` VARCHAR(191) NULL,
    `collected_data` JSON NULL,
    `message_count` INTEGER NOT NULL DEFAULT 0,
    `last_message_at` DATETIME(3) NULL,
    `completed_at` DATETIME(3) NULL,
    `created_at` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    `updated_at` DATETIME(3) NOT NULL,
    PRIMARY KEY (`id`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `agent_messages` (
    `id` VARCHAR(191) NOT NULL,
    `session_id` VARCHAR(191) NOT NULL,
    `user_id` VARCHAR(191) NULL,
    `role` VARCHAR(191) NOT NULL,
    `content` TEXT NOT NULL,
    `route` VARCHAR(191) NULL,
    `step` VARCHAR(191) NULL,
    `tool_calls` JSON NULL,
    `event` JSON NULL,
    `created_at` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (`id`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
ALTER TABLE `agent_messages` ADD CONSTRAINT `agent_messages_session_id_fkey`
    FOREIGN KEY (`session_id`) REFERENCES `agent_sessions`(`id`) ON DELETE CASCADE ON UPDATE CASCADE;
"""
# The first two are Prisma's, the others what its users are told to create.
_INDEXES = """
CREATE INDEX agent_sessions_user_id_status_idx ON agent_sessions(user_id, status);
CREATE INDEX agent_messages_session_id_idx ON agent_messages(session_id);
CREATE INDEX idx_sessions_user_status ON agent_sessions(user_id, status);
CREATE INDEX idx_sessions_updated ON agent_sessions(updated_at);
CREATE INDEX idx_messages_session ON agent_messages(session_id);
CREATE INDEX idx_messages_created ON agent_messages(created_at);
"""
# Counts that were never kept, messages of one moment and out of order, a session in the middle of a route.
_ROWS = """
INSERT INTO agent_sessions (id, user_id, agent_name, status, current_route, current_step, collected_data,
    message_count, last_message_at, completed_at, created_at, updated_at) VALUES
    ('clx1', 'ann', 'Support', 'active', 'booking', 'ask_date', '{"city": "Lagos", "guests": 2}',
     0, NULL, NULL, '2024-03-31 01:30:00.123', '2024-03-31 02:30:00.456'),
    ('clx2', NULL, NULL, 'completed', NULL, NULL, NULL,
     7, '2024-01-01 10:00:00.000', '2024-01-01 11:00:00.000', '2024-01-01 09:00:00.000',
     '2024-01-01 11:00:00.000'),
    ('clx3', 'ann', NULL, 'abandoned', 'booking', NULL, '{}',
     0, NULL, NULL, '2024-02-01 09:00:00.000', '2024-02-01 09:00:00.000');
INSERT INTO agent_messages (id, session_id, user_id, role, content, route, step, tool_calls, event,
    created_at) VALUES
    ('m9', 'clx1', 'ann', 'user', 'first', 'booking', NULL, NULL, NULL, '2024-03-31 01:30:00.123'),
    ('ma', 'clx1', NULL, 'assistant', 'third', 'booking', 'ask_city', '[{"name": "search"}]', NULL,
     '2024-03-31 01:31:00.000'),
    ('mB', 'clx1', 'ann', 'user', 'second', NULL, NULL, NULL, '{"kind": "message"}',
     '2024-03-31 01:31:00.000'),
    ('m1', 'clx1', 'ann', 'user', 'fourth: 🙂 ''quoted''', NULL, NULL, NULL, NULL, '2024-03-31 01:32:00.000'),
    ('n1', 'clx2', NULL, 'user', 'hello', NULL, NULL, NULL, NULL, '2024-01-01 10:00:00.000');
"""


def statements(dialect: str) -> list[str]:
    """What makes these tables and rows in `postgresql`, `sqlite` or `mysql`."""
    tables = {"postgresql": _POSTGRESQL, "sqlite": _SQLITE, "mysql": _MYSQL}[dialect]
    return [each.strip() for each in (tables + _INDEXES + _ROWS).split(";\n") if each.strip()]


def check_adopted(adapter: PersistenceAdapter) -> None:
    """That the rows above are all there, as ours."""
    sessions = {each.id: each for each in adapter.find_sessions(SessionQuery()).items}
    assert list(sessions) == ["clx1", "clx3", "clx2"]
    first, second, third = (sessions[name] for name in ("clx1", "clx2", "clx3"))
    assert (first.user_id, first.agent_name, first.status, first.version) == ("ann", "Support", "active", 1)
    assert first.data == {"city": "Lagos", "guests": 2}
    assert first.created_at == datetime(2024, 3, 31, 1, 30, 0, 123000, tzinfo=UTC)
    assert first.updated_at == datetime(2024, 3, 31, 2, 30, 0, 456000, tzinfo=UTC)
    assert first.current_route is not None
    assert first.current_step is not None
    assert (first.current_route.id, first.current_step.id) == ("booking", "ask_date")
    assert first.current_route.entered_at == first.updated_at
    assert [each.route_id for each in first.route_history] == ["booking"]
    assert first.message_count == 4
    assert first.last_message_at == datetime(2024, 3, 31, 1, 32, tzinfo=UTC)
    assert (second.status, second.message_count, second.data) == ("completed", 1, {})
    assert second.completed_at == datetime(2024, 1, 1, 11, tzinfo=UTC)
    assert (third.message_count, third.last_message_at, third.current_step) == (0, None, None)
    found = adapter.load("clx1", last_messages=10)
    assert found is not None
    assert [(each.sequence, each.id) for each in found.messages] == [
        (1, "m9"),
        (2, "mB"),
        (3, "ma"),
        (4, "m1"),
    ]
    assert [each.content for each in found.messages] == ["first", "second", "third", "fourth: 🙂 'quoted'"]
    assert (found.messages[2].tool_calls, found.messages[1].event) == (
        [{"name": "search"}],
        {"kind": "message"},
    )
    assert found.messages == adapter.find_messages(MessageQuery(session_id="clx1")).items
    assert [each.id for each in adapter.find_messages(MessageQuery(user_id="ann")).items] == [
        "m9",
        "mB",
        "m1",
    ]
