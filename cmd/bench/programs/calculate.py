def calculate(x, y):
    return x + y


print("hello from a jail")
result = calculate(10, 20)
