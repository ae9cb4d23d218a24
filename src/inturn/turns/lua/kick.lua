-- kick: claim the waking of an overdue session.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 grace ms  3 the longest wait between two wake-ups, ms
--        4 do many messages wait in the broker? (1 or 0)
-- reply  { 'wake', head, crashed? }  publish the head's message; crashed? = 1 if an owner's lease lapsed
--        { 'busy' }   somebody holds the lease
--        { 'early' }  not due, or another sweeper was first, or a message may well be on its way
--        { 'empty' }  nothing waits
--
-- Invariants: one sweeper wins, without a lock, because the first moves the due time on. The wait for somebody
-- to begin doubles from wake-up to wake-up, and where many messages wait, this session's own may be among them:
-- then only each third one is sent, from the fourth on. So a backlog breeds no storm. After a crash, whose
-- message goes before all others, the first wait is a quarter of the grace: that message may have been in the
-- hand of the next one to die.

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
local before = redis.call('HGET', KEYS[4], 'wakes')
local wakes = before and before + 1 or held[1] and -1 or 1
redis.call('HSET', KEYS[4], 'wakes', string.format('%d', wakes))
local wait = math.min(tonumber(ARGV[2]) * 2 ^ (wakes - 1), tonumber(ARGV[3]))
redis.call('ZADD', KEYS[1], now + math.floor(wait), session)
if before and ARGV[4] == '1' and (wakes < 3 or wakes % 3 > 0) then
  return { 'early' }
end
return { 'wake', head, held[1] and 1 or 0 }
