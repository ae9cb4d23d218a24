-- look: where a turn stands; changes nothing.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 turn ID
-- reply  { 'running', 0 }  { 'waiting', turns ahead }  { 'done', 0 }  { 'unknown', 0 }

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local place = redis.call('LPOS', KEYS[2], ARGV[1])
if place then
  local count = tonumber(redis.call('HGET', KEYS[4], 'set:' .. redis.call('LINDEX', KEYS[2], 0)) or 1)
  if place < count and is_live(now) then
    return { 'running', 0 }
  end
  return { 'waiting', place }
end
return { redis.call('ZSCORE', KEYS[5], ARGV[1]) and 'done' or 'unknown', 0 }
