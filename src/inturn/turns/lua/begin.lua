-- begin: take a session's lease and hand out the head of its mailbox, in one round trip.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 turn ID of the message  3 its payload, or '' if it was offered before
--        4 owner's token  5 lease ms  6 grace ms  7 most waiting turns
--        8 policy, 9 group, 10 share and 11 quiet ms of a turn that comes with its payload, as for `offer`
-- reply  { 'ok', fence, head, payload, attempts, waiting, turn ID to stop or '', { turn, payload, ... } }
--        { 'busy' }   somebody holds the lease, or the session sleeps after a failure, or is held back for
--                     messages that may still come
--        { 'done' }   nothing waits, and the turn is finished
--        { 'empty' }  nothing waits, and the turn is unknown
--        { 'full', waiting }, { 'rejected', waiting }, { 'shut', waiting in all }  the turn came with a
--                     payload and was refused
--
-- Invariants: at most one live owner; the same token again is the same acquisition (nothing is counted
-- twice); the fence grows with each owner, also when this hash has expired or was lost, because it is
-- never below the clock. The head need not be the turn of the message: order decides. Who takes a turn over
-- is told that it is to stop: a cancellation outlives the owner that did not live to see it. The turns at the
-- end of the reply are one with the head, in order, and every owner of that head is given the same ones.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local session, turn, payload, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lease, grace, most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local done = redis.call('ZSCORE', KEYS[5], turn)
if payload ~= '' and not done and redis.call('HEXISTS', KEYS[3], turn) == 0 then
  local offered = append(
    now, session, turn, payload, grace, most, ARGV[8], ARGV[9], ARGV[10], ARGV[11]
  )
  if offered[1] ~= 'new' then
    return { offered[1], offered[2] }
  end
end

local head = redis.call('LINDEX', KEYS[2], 0)
if not head then
  return { done and 'done' or 'empty' }
end

local held = redis.call('HMGET', KEYS[4], 'owner', 'until', 'fence', 'sleep', 'stop')
local live = held[1] and tonumber(held[2] or 0) > now
local fence = tonumber(held[3] or 0)
local attempts
if live and held[1] == token then
  attempts = tonumber(redis.call('HGET', KEYS[4], 'att:' .. head) or 0)
elseif live or tonumber(held[4] or 0) > now then
  return { 'busy' }
elseif quiet_until(head) > now then
  redis.call('HDEL', KEYS[4], 'wakes')
  redis.call('ZADD', KEYS[1], quiet_until(head), session)
  return { 'busy' }
else
  fence = math.max(fence + 1, now)
  attempts = redis.call('HINCRBY', KEYS[4], 'att:' .. head, 1)
  redis.call('HSET', KEYS[4], 'owner', token, 'until', now + lease, 'fence', string.format('%d', fence))
  redis.call('HDEL', KEYS[4], 'sleep', 'wakes')
  redis.call('PERSIST', KEYS[4])
  redis.call('ZADD', KEYS[1], now + lease, session)
end
return {
  'ok', fence, head, redis.call('HGET', KEYS[3], head), attempts, redis.call('LLEN', KEYS[2]), held[5] or '',
  settle(head)
}
