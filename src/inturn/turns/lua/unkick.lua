-- unkick: give back the claim of a wake-up whose message could not be sent.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 ms until the session is due again
-- reply  1 given back, 0 somebody has begun meanwhile, or nothing waits
--
-- Invariant: the time that grows from wake-up to wake-up grows with messages sent, not with a broker's
-- outage. Run twice, it only moves the due time of a session that nobody holds.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local held = redis.call('HMGET', KEYS[4], 'owner', 'wakes')
if held[1] or not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local wakes = tonumber(held[2] or 0)
if wakes == 1 or wakes == -1 then
  redis.call('HDEL', KEYS[4], 'wakes') -- it was the first one
elseif wakes ~= 0 then
  redis.call('HINCRBY', KEYS[4], 'wakes', -1)
end
redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[2]), ARGV[1])
return 1
