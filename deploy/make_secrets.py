"""Make up the secrets that docker-compose.yml reads: `python3 deploy/make_secrets.py`; needs Python alone.

It writes deploy/secrets, which is not in git: a file for each secret, and Redis' users with the rights of
each kind of process. Files that are there stay as they are, so it can be run again for a new version. Those
for the keys of providers and platforms are empty: fill in what you use.

`--redis` and `--postgres` are the servers' addresses (default: their names in docker-compose.yml).
"""

import argparse
import re
import secrets
from pathlib import Path

HERE = Path(__file__).parent
FILLED_IN_BY_YOU = (
    "INTURN_CONSOLE_USERS",
    "INTURN_ENCRYPTION_KEYS",
    "INTURN_JWT_SECRET",
    "OPENAI_API_KEY",
    "SLACK_BOT_TOKEN",
    "SLACK_SIGNING_SECRET",
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
)
HEALTH = "user health on nopass resetkeys resetchannels -@all +ping"
"""For the server's own health check, which must not need a password; it may say nothing but PING."""


def main() -> None:
    """Write what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE / "secrets")
    parser.add_argument("--redis", default="valkey:6379")
    parser.add_argument("--postgres", default="postgres:5432")
    chosen = parser.parse_args()
    chosen.folder.mkdir(mode=0o700, exist_ok=True)  # whoever may not enter cannot read what is open inside

    passwords = {}
    acl = (HERE / "redis" / "users.acl").read_text()
    for user in re.findall(r"^user (\w+) on", acl, re.M):
        passwords[user] = secrets.token_hex(24)
        url = f"redis://{user}:{passwords[user]}@{chosen.redis}/0"
        passwords[user] = write(chosen.folder / f"REDIS_URL_{user}", url).split(":")[2].partition("@")[0]
    closed = re.sub(
        r"^user (\w+) on resetpass", lambda user: with_password(user[1], passwords), acl, flags=re.M
    )
    write(chosen.folder / "users.acl", closed + HEALTH)

    password = write(chosen.folder / "POSTGRES_PASSWORD", secrets.token_hex(24))
    write(chosen.folder / "DATABASE_URL", f"postgresql://inturn:{password}@{chosen.postgres}/inturn")
    write(chosen.folder / "INTURN_API_KEYS", f"backend:{secrets.token_urlsafe(32)}")
    write(chosen.folder / "FLOWER_BASIC_AUTH", f"inturn:{secrets.token_urlsafe(24)}")
    write(chosen.folder / "GRAFANA_PASSWORD", secrets.token_urlsafe(24))
    for name in FILLED_IN_BY_YOU:
        write(chosen.folder / name, "")
    print(f"{chosen.folder}: {len(list(chosen.folder.iterdir()))} files")  # noqa: T201


def with_password(user: str, passwords: dict[str, str]) -> str:
    """How the line of a user in users.acl begins."""
    return f"user {user} on >{passwords[user]}"


def write(path: Path, text: str) -> str:
    """Write a secret unless it is there; returns what is there."""
    if not path.exists():
        path.write_text(f"{text}\n" if text else "")
        # Compose mounts the file as it is, and the container's user is not the one who made it.
        path.chmod(0o644)
    return path.read_text().strip()


if __name__ == "__main__":
    main()
