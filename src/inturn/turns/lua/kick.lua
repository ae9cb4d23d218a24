-- kick: claim the waking of an overdue session.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 grace ms  3 the longest wait between two wake-ups, ms
-- reply  { 'wake', head, crashed? }  publish the head's message; crashed? = 1 if an owner's lease lapsed
--        { 'busy' }   somebody holds the lease
--        { 'early' }  not due, or another sweeper was first
--        { 'empty' }  nothing waits
--
-- Invariants: one sweeper wins, without a lock, because the first moves the due time on. The wait doubles
-- from wake-up to wake-up until somebody begins, so a backlog breeds no storm of messages.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local session = ARGV[1]

local head = redis.call('LINDEX', KEYS[2], 0)
if not head then
  redis.call('ZREM', KEYS[1], session)
  count(0)
  return { 'empty' }
end
if tonumber(redis.call('ZSCORE', KEYS[1], session) or now + 1) > now then
  return { 'early' }
end
local held = redis.call('HMGET', KEYS[4], 'owner', 'until')
if held[1] and tonumber(held[2] or 0) > now then
  redis.call('ZADD', KEYS[1], held[2], session)
  return { 'busy' }
end
redis.call('HDEL', KEYS[4], 'owner', 'until', 'sleep')
local wakes = redis.call('HINCRBY', KEYS[4], 'wakes', 1)
local wait = math.min(tonumber(ARGV[2]) * 2 ^ (wakes - 1), tonumber(ARGV[3]))
redis.call('ZADD', KEYS[1], now + math.floor(wait), session)
return { 'wake', head, held[1] and 1 or 0 }
