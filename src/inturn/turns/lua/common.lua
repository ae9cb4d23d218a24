-- common: which turns are handed out as one, and when, and how many wait; it stands before each of the
-- mailbox's scripts.
--
-- KEYS are those of a session's scripts. Of a turn that may be merged the session's hash holds the field
-- `join:<turn>`: '<group> <share> <quiet> <at>'. Turns that wait behind each other and have the same group
-- become one, as long as their shares of what one message may be come to no more than WHOLE. No other turn is
-- handed out before the last of them is `quiet` ms old (it came `at`), unless no other could join them.
-- `set:<turn>` says of a head how many turns it was handed out with. It is written once, with the first time:
-- after a crash the same turns are handed out again, whatever has come meanwhile.
--
-- `depth` is the number of turns in all queues of the bucket: whoever changes a queue's length calls `count`, in
-- the same script. `shut` is there while too many turns wait in all: then no turn is appended.

local WHOLE = 10000
local LEAST = 500 -- the smallest share: no more than 20 become one
local PATIENCE = 5 -- so many quiet times after the first message nobody waits for another

local function joining(turn)
  local field = redis.call('HGET', KEYS[4], 'join:' .. turn)
  if field then
    local group, share, quiet, at = string.match(field, '^(%S+) (%d+) (%d+) (%d+)$')
    return { group = group, share = tonumber(share), quiet = tonumber(quiet), at = tonumber(at) }
  end
end

-- How many turns would be handed out with this head, and until when (ms) another one may join them; 0: none.
local function gather(head)
  local first = joining(head)
  if not first then
    return 1, 0
  end
  local count, share, last = 1, first.share, first
  for _, turn in ipairs(redis.call('LRANGE', KEYS[2], 1, WHOLE / LEAST - 1)) do
    local this = joining(turn)
    if not this or this.group ~= first.group or share + this.share > WHOLE then
      return count, 0
    end
    count, share, last = count + 1, share + this.share, this
  end
  if share + LEAST > WHOLE then
    return count, 0
  end
  return count, math.min(last.at + last.quiet, first.at + PATIENCE * last.quiet)
end

-- Until when (ms) nobody may take the head, for more may come; 0: it may be taken.
local function quiet_until(head)
  if redis.call('HEXISTS', KEYS[4], 'set:' .. head) == 1 then
    return 0
  end
  local _, till = gather(head)
  return till
end

-- Settle which turns are handed out with the head; the others among them, as { turn, payload, turn, ... }.
local function settle(head)
  local count = tonumber(redis.call('HGET', KEYS[4], 'set:' .. head))
  if not count then
    count = gather(head)
    redis.call('HSET', KEYS[4], 'set:' .. head, count)
  end
  local others = {}
  if count > 1 then
    for _, turn in ipairs(redis.call('LRANGE', KEYS[2], 1, count - 1)) do
      others[#others + 1] = turn
      others[#others + 1] = redis.call('HGET', KEYS[3], turn)
    end
  end
  return others
end

-- Whether somebody holds the lease.
local function is_live(now)
  local held = redis.call('HMGET', KEYS[4], 'owner', 'until')
  return held[1] and tonumber(held[2] or 0) > now
end

-- Ask for the head, which was handed out before, to end. Where it sleeps, it has nothing left to wait for.
-- Answers 1 if nobody works on it: then the session is due.
local function stop(head, now, session)
  redis.call('HSET', KEYS[4], 'stop', head)
  if is_live(now) then
    return 0
  end
  redis.call('HDEL', KEYS[4], 'sleep')
  redis.call('ZADD', KEYS[1], 'XX', now, session)
  return 1
end

-- Note that there are `n` turns more in the queue, or fewer; call it once the index is as it should be. Where no
-- session waits there is nothing to count, so whatever the counter had wrong is gone then.
local function count(n)
  if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('DEL', KEYS[6])
  elseif n ~= 0 and redis.call('INCRBY', KEYS[6], n) < 0 then
    redis.call('SET', KEYS[6], 0)
  end
end

-- Append a turn that is not known, in the way that its policy says. Answers as `offer` does.
local function append(now, session, turn, payload, grace, most, policy, group, share, quiet)
  local waiting = redis.call('LLEN', KEYS[2])
  if policy == 'reject' and waiting > 0 then
    return { 'rejected', waiting, 0 }
  elseif waiting >= most then
    return { 'full', waiting, 0 }
  end
  local all = redis.call('GET', KEYS[7])
  if all then
    return { 'shut', tonumber(all), 0 }
  end
  local head = redis.call('LINDEX', KEYS[2], 0)
  local was_quiet = head and not is_live(now) and quiet_until(head) > now
  redis.call('RPUSH', KEYS[2], turn)
  redis.call('HSET', KEYS[3], turn, payload)
  if group ~= '' then
    local field = string.format('%s %d %d %d', group, tonumber(share), tonumber(quiet), now)
    redis.call('HSET', KEYS[4], 'join:' .. turn, field)
    redis.call('PERSIST', KEYS[4])
  end
  local publish = 0
  if not head then
    local till = quiet_until(turn)
    publish = till > now and 0 or 1
    redis.call('ZADD', KEYS[1], publish == 1 and now + grace or till, session)
  elseif was_quiet then
    -- The turn joins those that are held back, or ends the wait.
    local till = quiet_until(head)
    publish = till > now and 0 or 1
    redis.call('ZADD', KEYS[1], publish == 1 and now or till, session)
  end
  if policy == 'interrupt' and head and redis.call('HEXISTS', KEYS[4], 'set:' .. head) == 1 then
    publish = stop(head, now, session)
  end
  count(1)
  return { 'new', waiting, publish }
end

