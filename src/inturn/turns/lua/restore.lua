-- restore: put turns that the inbox has, and the mailbox has lost or never got, where they belong.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID; then of each turn, in order of acceptance:
--        turn ID, payload, group or '', share, quiet ms (see `common`)
-- reply  { 'ok', { turn ID, ... } }  with those of the turns that are done, and so were not put back
--        { 'busy' }  somebody holds the lease; nothing was changed
--
-- Invariants: afterwards the queue has these turns in this order. A turn of the queue that is not among them
-- keeps its place before the one it stood before, or at the end. Nothing is handed out here: where another turn
-- is the head now, its session is due. What had been settled about the old head is settled anew if it is the head
-- no more; and an owner whose lease has lapsed loses it with its turn: what it still says of that one must not be
-- taken for the other.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local session = ARGV[1]
if is_live(now) then
  return { 'busy' }
end

local accepted, is_accepted, done, new = {}, {}, {}, 0
for place = 2, #ARGV, 5 do
  local turn = ARGV[place]
  if redis.call('ZSCORE', KEYS[5], turn) then
    done[#done + 1] = turn
  else
    if redis.call('HSETNX', KEYS[3], turn, ARGV[place + 1]) == 1 then
      new = new + 1
      if ARGV[place + 2] ~= '' then
        local field = string.format(
          '%s %d %d %d', ARGV[place + 2], tonumber(ARGV[place + 3]), tonumber(ARGV[place + 4]), now
        )
        redis.call('HSET', KEYS[4], 'join:' .. turn, field)
        redis.call('PERSIST', KEYS[4])
      end
    end
    accepted[#accepted + 1] = turn
    is_accepted[turn] = true
  end
end

local queue = redis.call('LRANGE', KEYS[2], 0, -1)
-- Turns that only the queue has, by the accepted one that follows them ('': none).
local strangers, some = {}, {}
for _, turn in ipairs(queue) do
  if is_accepted[turn] then
    strangers[turn] = some
    some = {}
  else
    some[#some + 1] = turn
  end
end
local order = {}
for _, turn in ipairs(accepted) do
  for _, stranger in ipairs(strangers[turn] or {}) do
    order[#order + 1] = stranger
  end
  order[#order + 1] = turn
end
for _, stranger in ipairs(some) do
  order[#order + 1] = stranger
end

local changed = #order ~= #queue
for place, turn in ipairs(order) do
  changed = changed or queue[place] ~= turn
end
if changed then
  redis.call('DEL', KEYS[2])
  for _, turn in ipairs(order) do
    redis.call('RPUSH', KEYS[2], turn)
  end
  if queue[1] ~= order[1] then
    redis.call('HDEL', KEYS[4], 'set:' .. (queue[1] or ''), 'stop', 'sleep', 'owner', 'until')
    redis.call('ZADD', KEYS[1], now, session)
  end
  count(new)
end
return { 'ok', done }
