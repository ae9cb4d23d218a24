-- cancel: take a waiting turn out of the mailbox, or ask for a running one to stop.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 turn ID  3 how long to know the turn's ID, ms  4 the most IDs to know
-- reply  'dropped'    it waited and never runs; a replay, or a later call, answers the same
--        'signalled'  it runs; its owner sees the flag with its next piece of text or its next renewal,
--                     and so does whoever takes the turn over from it. So with a turn that is one with
--                     others and has begun, also between two tries: it cannot be taken out of them any more
--        'unknown'    it is not in the mailbox
--
-- Invariant: a dropped turn counts as done, so a late delivery of the same event does not bring it back. The
-- half millisecond in its score tells that it was dropped. An owner whose lease has lapsed loses it with its
-- turn: what it still says of that one must not be taken for the next.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local turn, keep = ARGV[2], tonumber(ARGV[3])

local place = redis.call('LPOS', KEYS[2], turn)
if not place then
  return tonumber(redis.call('ZSCORE', KEYS[5], turn) or 0) % 1 > 0 and 'dropped' or 'unknown'
end
local head = redis.call('LINDEX', KEYS[2], 0)
local size = tonumber(redis.call('HGET', KEYS[4], 'set:' .. head) or 1)
if place < size and (size > 1 or is_live(now)) then
  stop(head, now, ARGV[1])
  return 'signalled'
end
redis.call('LREM', KEYS[2], 1, turn)
redis.call('HDEL', KEYS[3], turn)
redis.call('HDEL', KEYS[4], 'att:' .. turn, 'set:' .. turn, 'join:' .. turn)
if place == 0 then
  redis.call('HDEL', KEYS[4], 'stop', 'owner', 'until')
end
redis.call('ZADD', KEYS[5], string.format('%d.5', now), turn)
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - keep)
redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -1 - tonumber(ARGV[4]))
redis.call('PEXPIRE', KEYS[5], keep)
if redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('PEXPIRE', KEYS[4], 86400000)
elseif place == 0 then
  -- What slept was the dropped turn; the next one has no reason to wait.
  redis.call('HDEL', KEYS[4], 'sleep')
  redis.call('ZADD', KEYS[1], 'XX', now, ARGV[1])
end
count(-1)
return 'dropped'
