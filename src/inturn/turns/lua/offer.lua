-- offer: append a turn to a session's mailbox, unless its ID is known.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
-- ARGV   1 session ID  2 turn ID  3 payload  4 grace ms  5 most waiting turns
-- reply  { outcome, turns ahead of this one, publish? }
--        new    appended; publish? = 1 if the session had nothing waiting and so needs a message
--        known  waits or runs already; publish? = 1 if it is next and nobody works on it: the first
--               message may never have been sent
--        done   was finished a while ago
--        full   refused; the second value is the number that wait
--
-- Invariants: at most once per turn ID; the list is in order of arrival; a session is in the index exactly
-- while its list is not empty. A new turn never postpones the time by which its session must be served.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local session, turn = ARGV[1], ARGV[2]

if redis.call('ZSCORE', KEYS[5], turn) then
  return { 'done', 0, 0 }
end

if redis.call('HEXISTS', KEYS[3], turn) == 1 then
  local ahead = redis.call('LPOS', KEYS[2], turn)
  local held = redis.call('HMGET', KEYS[4], 'until', 'sleep')
  local idle = tonumber(held[1] or 0) <= now and tonumber(held[2] or 0) <= now
  return { 'known', ahead, (ahead == 0 and idle) and 1 or 0 }
end

local waiting = redis.call('LLEN', KEYS[2])
if waiting >= tonumber(ARGV[5]) then
  return { 'full', waiting, 0 }
end

redis.call('RPUSH', KEYS[2], turn)
redis.call('HSET', KEYS[3], turn, ARGV[3])
if waiting == 0 then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), session)
  return { 'new', 0, 1 }
end
return { 'new', waiting, 0 }
