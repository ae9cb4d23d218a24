-- spend: ask whether the model may be called, or record what was used of it, for several limits in one step.
--
-- KEYS   1 closed (string)  2 this call of the script (string)  3... a hash for each limit
-- ARGV   1 ask? (1 or 0)  2 ms for which nobody is to call the model, or 0  3 how long to know this call, ms
--        then of each limit: the most in a window, the window's ms, how much is used now
-- reply  { ms to wait, number of the limit that says so, refusals }
--        0 ms: it was recorded. Otherwise nothing was: in so many ms the first of those who wait may come.
--        The number is 0 where the model itself has asked for a pause. Refusals: how many were refused
--        by this limit in its window, this one included.
--
-- A hash has fields `<slice>` (how much was used in it) and `r<slice>` (how many were refused), and a window has
-- SLICES slices. One that is in the window with any part of it counts in full.
--
-- Invariants: while nothing is recorded without asking, no window of that length, wherever it begins, has more
-- than its limit. What is recorded without asking is never refused, and those who ask afterwards wait for it. A
-- replay records nothing again.

local SLICES = 20

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local asks, pause = ARGV[1] == '1', tonumber(ARGV[2])

if redis.call('EXISTS', KEYS[2]) == 1 then
  return { 0, 0, 0 }
end

-- How much counts now, in slices from the oldest to the newest, and how many were refused.
local function read(key, width)
  local oldest, slices, refused = math.floor(now / width) - SLICES, {}, 0
  local fields = redis.call('HGETALL', key)
  for at = 1, #fields, 2 do
    local kind, slice = string.match(fields[at], '^(r?)(%d+)$')
    slice = tonumber(slice)
    if slice < oldest then
      redis.call('HDEL', key, fields[at])
    elseif kind == 'r' then
      refused = refused + tonumber(fields[at + 1])
    else
      slices[#slices + 1] = { slice = slice, used = tonumber(fields[at + 1]) }
    end
  end
  table.sort(slices, function(one, other)
    return one.slice < other.slice
  end)
  return slices, refused
end

local function add(key, field, number, window)
  redis.call('HINCRBY', key, field, number)
  redis.call('PEXPIRE', key, 2 * window)
end

if asks then
  local longest = math.max(0, redis.call('PTTL', KEYS[1]))
  local which, refusals = 0, 0
  for limit = 1, #KEYS - 2 do
    local key = KEYS[limit + 2]
    local most, window = tonumber(ARGV[limit * 3 + 1]), tonumber(ARGV[limit * 3 + 2])
    local width = window / SLICES
    local slices, refused = read(key, width)
    local used, wait = 0, 0
    for _, each in ipairs(slices) do
      used = used + each.used
    end
    for _, each in ipairs(slices) do
      if used < most then
        break
      end
      used = used - each.used
      wait = (each.slice + SLICES + 1) * width - now
    end
    if wait > longest then
      longest, which, refusals = wait, limit, refused + 1
    end
  end
  if longest > 0 then
    if which > 0 then
      local window = tonumber(ARGV[which * 3 + 2])
      add(KEYS[which + 2], string.format('r%d', math.floor(now * SLICES / window)), 1, window)
    end
    return { math.ceil(longest), which, refusals }
  end
end

for limit = 1, #KEYS - 2 do
  local window, cost = tonumber(ARGV[limit * 3 + 2]), tonumber(ARGV[limit * 3 + 3])
  if cost > 0 then
    add(KEYS[limit + 2], string.format('%d', math.floor(now * SLICES / window)), cost, window)
  end
end
if pause > math.max(0, redis.call('PTTL', KEYS[1])) then
  redis.call('SET', KEYS[1], 1, 'PX', pause)
end
redis.call('SET', KEYS[2], 1, 'PX', ARGV[3])
return { 0, 0, 0 }
