-- forget: remove what is left of a session that has been deleted.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID
-- reply  { 1, turn, ... }  it is gone; these turns were known to be done
--        { 0 }             turns wait or run, of a new session by now: nothing was changed
--
-- Invariants: nothing is removed that a waiting turn or a live lease needs. The IDs of turns that are done stay
-- until they expire, so the same event again is no turn of a new session.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local held = redis.call('HMGET', KEYS[4], 'owner', 'until')
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or (held[1] and tonumber(held[2] or 0) > now) then
  return { 0 }
end
local done = redis.call('ZRANGE', KEYS[5], 0, -1)
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
table.insert(done, 1, 1)
return done
