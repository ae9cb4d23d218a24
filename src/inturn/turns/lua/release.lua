-- release: give the lease back with the turn still at the head, and let the session sleep.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 owner's token  3 delay ms  4 count this attempt? (1 or 0)
-- reply  'released' or 'lost'
--
-- Invariants: no slot is held while a turn waits for its next try, and no later turn overtakes it: until
-- the delay is over the session answers "busy", and the index is the timer. A replay answers the same.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local till = now + tonumber(ARGV[3])

local held = redis.call('HMGET', KEYS[4], 'owner', 'last', 'reply')
if held[1] ~= ARGV[2] then
  return (held[2] == ARGV[2] and held[3] == 'sleep') and 'released' or 'lost'
end
local head = redis.call('LINDEX', KEYS[2], 0)
if head and ARGV[4] == '0' then
  redis.call('HINCRBY', KEYS[4], 'att:' .. head, -1)
end
redis.call('HDEL', KEYS[4], 'owner', 'until')
redis.call('HSET', KEYS[4], 'last', ARGV[2], 'reply', 'sleep', 'sleep', till)
redis.call('ZADD', KEYS[1], 'XX', till, ARGV[1])
return 'released'
