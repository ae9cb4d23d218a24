-- wipe: empty a session's mailbox, whatever waits or runs in it, for its user is erased.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 how long to know the turns' IDs, ms
-- reply  { { turn, ... }, { turn, ... } }  those that waited or ran; all that were known to be done, these
--        included
--
-- Invariants: a turn that was here counts as done, so the same event again does not bring it back. An owner
-- loses its lease with it: what it still writes to the mailbox or a stream is refused. The hash is gone, and the
-- next owner's fence is greater all the same, for it is never below the clock.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local turns = redis.call('LRANGE', KEYS[2], 0, -1)
for _, turn in ipairs(turns) do
  redis.call('ZADD', KEYS[5], string.format('%d.5', now), turn)
end
if #turns > 0 then
  redis.call('PEXPIRE', KEYS[5], tonumber(ARGV[2]))
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('ZREM', KEYS[1], ARGV[1])
count(-#turns)
return { turns, redis.call('ZRANGE', KEYS[5], 0, -1) }
