-- bury: keep a turn that has failed among the dead letters of its bucket, unless it is there.
--
-- KEYS   1 dead (zset)  2 facts (hash)  3 payloads (hash)
-- ARGV   1 the letter's name  2 facts  3 payload  4 how long to keep letters, ms  5 the most letters to keep
-- reply  1: it is there now  0: it was there before, and stays as it was
--
-- Invariants: the three keys have the same names, and the same time to live. Scores (ms) grow with each letter, so
-- that those of a session stay in the order in which their turns failed. The oldest make room for a new one.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local name, keep, most = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5])

local function drop(names)
  for _, each in ipairs(names) do
    redis.call('ZREM', KEYS[1], each)
    redis.call('HDEL', KEYS[2], each)
    redis.call('HDEL', KEYS[3], each)
  end
end

drop(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - keep))
if redis.call('ZSCORE', KEYS[1], name) then
  return 0
end
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
redis.call('ZADD', KEYS[1], math.max(now, (tonumber(last[2]) or 0) + 1), name)
redis.call('HSET', KEYS[2], name, ARGV[2])
redis.call('HSET', KEYS[3], name, ARGV[3])
drop(redis.call('ZRANGE', KEYS[1], 0, -1 - most))
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, keep)
end
return 1
