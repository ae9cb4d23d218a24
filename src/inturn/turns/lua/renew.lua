-- renew: make a lease last longer.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 owner's token  3 lease ms
-- reply  { 1, turn ID to stop or '' }  kept
--        { 0, '' }                     lost
--
-- Invariant: never revives a lapsed lease: from that moment on another owner may have been let in.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local held = redis.call('HMGET', KEYS[4], 'owner', 'until', 'stop')
if held[1] ~= ARGV[2] or tonumber(held[2] or 0) <= now then
  return { 0, '' }
end
local till = now + tonumber(ARGV[3])
redis.call('HSET', KEYS[4], 'until', till)
redis.call('ZADD', KEYS[1], 'XX', till, ARGV[1])
return { 1, held[3] or '' }
