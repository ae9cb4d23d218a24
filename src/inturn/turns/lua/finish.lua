-- finish: store what a turn has ended with, take it off the mailbox, with those that were merged into it, and
-- decide what comes next, in one step.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)  8 and so on: results (strings), where this server has them
-- ARGV   1 session ID  2 owner's token  3 turn ID  4 go on? (1 or 0)  5 lease ms  6 grace ms
--        7 how long to know the turn's ID, ms  8 the most IDs to know
--        9 and so on, for each result: its value, and for how long it is kept, ms (0: for ever)
-- reply  { 'next', head, payload, attempts, waiting, { turn, payload, ... }, { turn, ... } }  the lease is kept;
--                           the first turns at the end are one with the head, as for `begin`; the others, no
--                           more than BEHIND, come after them
--        { 'empty' }        nothing waits; the lease is released
--        { 'quiet' }        what waits is held back for messages that may still come; the lease is released
--        { 'yield', head }  the lease is released; publish the head's message
--        { 'lost' }         somebody else drives the session; nothing was changed
--
-- Invariants: only the owner drops the head, and stores its result; whoever waits for that hears of it by the
-- channel of the same name. "Nothing waits" and "released" are one step, so a turn offered in between is never
-- stranded; a replay (a lost answer, asked again) answers the same. Results come first: a server without memory
-- for them refuses the first one, and nothing has changed.

local BEHIND = 8

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local session, token, turn = ARGV[1], ARGV[2], ARGV[3]
local this = token .. '|' .. turn

local held = redis.call('HMGET', KEYS[4], 'owner', 'last', 'reply')
if held[1] ~= token then
  if held[2] ~= this then
    return { 'lost' }
  end
  local head = redis.call('LINDEX', KEYS[2], 0)
  if held[3] == 'yield' and head then
    return { 'yield', head }
  end
  return { held[3] == 'quiet' and 'quiet' or 'empty' }
end

local head = redis.call('LINDEX', KEYS[2], 0)
local replay = head ~= turn
local gone = 0
if not replay then
  for place = 8, #KEYS do
    local value, known = ARGV[2 * place - 7], tonumber(ARGV[2 * place - 6])
    if known > 0 then
      redis.call('SET', KEYS[place], value, 'PX', known)
    else
      redis.call('SET', KEYS[place], value)
    end
    redis.call('PUBLISH', KEYS[place], value)
  end
  local keep = tonumber(ARGV[7])
  local size = tonumber(redis.call('HGET', KEYS[4], 'set:' .. turn) or 1)
  local popped = redis.call('LPOP', KEYS[2], size)
  gone = #popped
  for _, each in ipairs(popped) do
    redis.call('HDEL', KEYS[3], each)
    redis.call('HDEL', KEYS[4], 'att:' .. each, 'set:' .. each, 'join:' .. each)
    redis.call('ZADD', KEYS[5], now, each)
  end
  redis.call('HDEL', KEYS[4], 'stop')
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - keep)
  redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -1 - tonumber(ARGV[8]))
  redis.call('PEXPIRE', KEYS[5], keep)
  head = redis.call('LINDEX', KEYS[2], 0)
end

local till = head and quiet_until(head) or 0
if head and till <= now and ARGV[4] == '1' then
  local lapses = now + tonumber(ARGV[5])
  redis.call('HSET', KEYS[4], 'until', lapses)
  redis.call('ZADD', KEYS[1], lapses, session)
  count(-gone)
  local attempts
  if replay then
    attempts = tonumber(redis.call('HGET', KEYS[4], 'att:' .. head) or 0)
  else
    attempts = redis.call('HINCRBY', KEYS[4], 'att:' .. head, 1)
  end
  local waiting = redis.call('LLEN', KEYS[2])
  local others = settle(head)
  local size = 1 + #others / 2
  local behind = waiting > size and redis.call('LRANGE', KEYS[2], size, size + BEHIND - 1) or {}
  return { 'next', head, redis.call('HGET', KEYS[3], head), attempts, waiting, others, behind }
end

redis.call('HDEL', KEYS[4], 'owner', 'until')
local reply = till > now and 'quiet' or head and 'yield' or 'empty'
redis.call('HSET', KEYS[4], 'last', this, 'reply', reply)
if reply == 'quiet' then
  redis.call('ZADD', KEYS[1], till, session)
  count(-gone)
  return { 'quiet' }
elseif head then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[6]), session)
  count(-gone)
  return { 'yield', head }
end
redis.call('ZREM', KEYS[1], session)
count(-gone)
-- Idle: only the fence and the last reply are left in the hash. A day is far beyond any replay.
redis.call('PEXPIRE', KEYS[4], 86400000)
return { 'empty' }
