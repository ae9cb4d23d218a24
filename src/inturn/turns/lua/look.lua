-- look: where a turn stands; changes nothing.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
-- ARGV   1 turn ID
-- reply  { 'running', 0 }  { 'waiting', turns ahead }  { 'done', 0 }  { 'unknown', 0 }

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local place = redis.call('LPOS', KEYS[2], ARGV[1])
if place then
  local held = redis.call('HMGET', KEYS[4], 'owner', 'until')
  if place == 0 and held[1] and tonumber(held[2] or 0) > now then
    return { 'running', 0 }
  end
  return { 'waiting', place }
end
return { redis.call('ZSCORE', KEYS[5], ARGV[1]) and 'done' or 'unknown', 0 }
